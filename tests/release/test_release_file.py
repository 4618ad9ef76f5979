"""The release file: the rule by which ports follow, and what is refused."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from jobmon.config import release_info
from jobmon.release import (
    PORT_KEYS,
    RELEASE_FILE,
    Release,
    ReleaseError,
    Releases,
    parse_releases,
    read_releases,
)

FIRST = Release("emu.4", 5058, 5056, 5057, 3312)
SECOND = Release("emu.5", 5158, 5156, 5157, 3313)


def test_the_next_release_has_the_next_ports() -> None:
    assert FIRST.next() == SECOND
    assert SECOND.next() == Release("emu.6", 5258, 5256, 5257, 3314)
    assert Release("emu.9", 5558, 5556, 5557, 3317).next().name == "emu.10"


def test_every_release_follows_from_the_one_before() -> None:
    releases = read_releases()
    chain = [*reversed(releases.earlier), releases.current]
    assert chain[:2] == [FIRST, SECOND]
    for before, after in pairwise(chain):
        assert before.next() == after


def test_the_configuration_has_the_ports_of_the_file() -> None:
    current = read_releases().current
    info = release_info()
    assert info["release"] == current.name
    assert {key: info[key] for key in PORT_KEYS} == current.ports


def test_what_is_written_is_read_again() -> None:
    releases = Releases(SECOND, (FIRST,))
    assert parse_releases(releases.text()) == releases
    assert parse_releases(Releases(FIRST).text()) == Releases(FIRST)
    assert releases.advance() == Releases(SECOND.next(), (SECOND, FIRST))
    assert read_releases().text() == RELEASE_FILE.read_text()


def test_names_after_the_release_have_no_dot() -> None:
    assert FIRST.project == "jobmonemu4"
    assert FIRST.image == "jobmon:emu.4"


@pytest.mark.parametrize("name", ["emu", "emu.", "emu.x", "emu.04", "Emu.4", "emu 4", "", None, 4, "emu.4\n"])
def test_a_name_that_can_not_be_counted_on_is_refused(name: Any) -> None:
    with pytest.raises(ReleaseError, match="no name of a release"):
        Release(name, 5058, 5056, 5057, 3312)


@pytest.mark.parametrize("port", [80, 0, -1, 65536, "5058", True, 5058.5, None])
def test_a_wrong_port_is_refused(port: Any) -> None:
    with pytest.raises(ReleaseError, match=r"emu\.4: jqs_port: .* is no port"):
        Release("emu.4", port, 5056, 5057, 3312)


def test_a_port_is_there_once() -> None:
    with pytest.raises(ReleaseError, match="jqs_port and jsm_port are both 5056"):
        Release("emu.4", 5056, 5056, 5057, 3312)
    with pytest.raises(ReleaseError, match=r"emu\.9 and emu\.4 have port 5056 in common"):
        Releases(Release("emu.9", 7058, 5056, 7057, 7312), (FIRST,))
    with pytest.raises(ReleaseError, match="the name in common"):
        Releases(Release("emu.4", 7058, 7056, 7057, 7312), (FIRST,))


def test_after_the_last_port_there_is_no_next_release() -> None:
    last = Release("emu.600", 65458, 65456, 65500, 3908)
    with pytest.raises(ReleaseError, match=r"emu\.601: jqs_port: 65558"):
        last.next()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"release": "emu"}, "no name"),
        ({"jsm_port": None}, "no port"),
        ({"jms_port": 1}, "unknown key 'jms_port'"),
        ({"earlier": 5}, "expected a list"),
        ({"earlier": [5]}, "earlier: a release is one JSON object"),
        ({"earlier": [{"release": "emu.3"}]}, "earlier: missing key 'db_port'"),
    ],
)
def test_a_wrong_file_is_named(change: dict[str, Any], message: str) -> None:
    document = {**FIRST.document(), **change}
    with pytest.raises(ReleaseError, match=rf"^here\.json: .*{message}"):
        parse_releases(json.dumps(document), "here.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(ReleaseError, match=r"^here\.json: (is not valid JSON|must hold one JSON object)"):
        parse_releases(text, "here.json")
