CREATE PROCEDURE find_unknown_keys(
    in_array LONGTEXT,
    in_known_keys LONGTEXT,
    OUT out_unknown LONGTEXT
)
    SQL SECURITY DEFINER
    READS SQL DATA
    COMMENT '
Description: Finds the objects of an array that have a key they should not have: a misspelt key must not be ignored.
Access: internal
Parameters:
  in_array: JSON array of objects
  in_known_keys: JSON array of the keys they may have
  out_unknown: [{"position": which object, from 1, "key": one such key, cut to 60 characters}, ...]; NULL: there is none
Example: CALL find_unknown_keys(in_jobs, ''["name", "job_hash"]'', v_unknown);
'
BEGIN
    SELECT CONCAT('[', GROUP_CONCAT(JSON_OBJECT('position', position, 'key', unknown_key) ORDER BY position), ']') INTO out_unknown
    FROM (
        SELECT item.position, LEFT(MIN(key_of_item.name), 60) AS unknown_key
        FROM JSON_TABLE(in_array, '$[*]' COLUMNS (position FOR ORDINALITY, document JSON PATH '$')) AS item
            JOIN JSON_TABLE(JSON_KEYS(item.document), '$[*]' COLUMNS (name MEDIUMTEXT PATH '$')) AS key_of_item
        WHERE NOT JSON_CONTAINS(in_known_keys, JSON_QUOTE(key_of_item.name))
        GROUP BY item.position) AS odd;
END
