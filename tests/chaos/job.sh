#!/bin/bash
# A job of the chaos tests: job.sh NAME KIND SECONDS, in a directory with records/ and locks/.
# KIND: good; flaky (fails twice, then is good); doomed (always fails).
# It keeps a record of its starts and ends, and finds out by itself whether it runs twice at the same time.
name=$1 kind=$2 seconds=$3
lock=locks/$name

record() {
  printf '%s %s %s\n' "$1" "$JOBMON_JOB_INSTANCE_ID" "$EPOCHREALTIME" >>"records/$name"
}

# When a process was started, in ticks since the boot: with its number it is a name for ever. Empty: it has ended.
birth() {
  local line
  born=
  if { read -r line <"/proc/$1/stat"; } 2>/dev/null; then
    set -- ${line##*) }
    case $1 in Z | X) ;; *) born=${20} ;; esac
  fi
}

birth $$
me="$$ $born"
# A symbolic link is made with what it says, in one step.
if ! ln -s "$me" "$lock" 2>/dev/null; then
  holder=$(readlink "$lock")
  birth "${holder% *}"
  [ "$holder" = "${holder% *} $born" ] && record twice
  rm -f "$lock"
  ln -s "$me" "$lock" || record twice
fi
record start
sleep "$seconds"
[ "$(readlink "$lock")" = "$me" ] || record twice
if [ "$kind" = doomed ] || { [ "$kind" = flaky ] && [ "$(grep -c ^failed "records/$name")" -lt 2 ]; }; then
  record failed
  rm "$lock"
  echo "$name fails" >&2
  exit 3
fi
record end
rm "$lock"
