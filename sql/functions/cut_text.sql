CREATE FUNCTION cut_text(
    in_text MEDIUMTEXT,
    in_length INT UNSIGNED
)
    RETURNS MEDIUMTEXT
    SQL SECURITY DEFINER
    DETERMINISTIC
    NO SQL
    COMMENT '
Description: A text that fits: one that is longer than in_length is cut in its middle (errors tell the most at their
  ends) and says so.
Access: internal
Parameters:
  in_text: the text; NULL stays NULL
  in_length: characters, 60 or more
Returns: the text, in_length characters at the most
Example: SELECT cut_text(REPEAT(''x'', 300), 255);
'
BEGIN
    DECLARE v_mark VARCHAR(60);
    DECLARE v_head INT UNSIGNED;
    IF CHAR_LENGTH(in_text) <= in_length OR in_text IS NULL THEN
        RETURN in_text;
    END IF;
    SET v_mark = CONCAT('[cut: this text had ', CHAR_LENGTH(in_text), ' characters]');
    SET v_head = (in_length - CHAR_LENGTH(v_mark)) DIV 4;
    RETURN CONCAT(LEFT(in_text, v_head), v_mark, RIGHT(in_text, in_length - v_head - CHAR_LENGTH(v_mark)));
END
