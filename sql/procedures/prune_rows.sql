CREATE PROCEDURE prune_rows(
    in_table VARCHAR(64),
    in_columns VARCHAR(255),
    in_join TEXT,
    in_keys LONGTEXT,
    in_archive BOOLEAN,
    INOUT inout_num_rows BIGINT
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Deletes rows of one table, found from a list of keys by indexes and in the list''s order; copies them to the table archive_... of the same name before, if asked to. Internal callers only: table, columns and join are SQL.
Access: internal
Parameters:
  in_table: the table
  in_columns: of JSON_TABLE over the list
  in_join: the tables joined to the list, which is named gone, in_table among them
  in_keys: JSON array; NULL: nothing is done
  in_archive: whether to copy
  inout_num_rows: is raised by the number of rows deleted
Example: CALL prune_rows(''job'', ''id BIGINT UNSIGNED PATH ''''$'''''', ''job FORCE INDEX (PRIMARY) ON job.job_id = gone.id'', ''[1]'', FALSE, v_n);
'
BEGIN
    DECLARE v_columns TEXT;
    DECLARE v_from TEXT;
    IF in_keys IS NOT NULL THEN
        SET @jobmon_keys = in_keys,
            v_from = CONCAT(' FROM JSON_TABLE(@jobmon_keys, ''$[*]'' COLUMNS (', in_columns, ')) AS gone STRAIGHT_JOIN ', in_join);
        IF in_archive THEN
            -- by name: after a migration the columns of the two may be in another order
            SELECT GROUP_CONCAT(CONCAT('`', COLUMN_NAME, '`') ORDER BY ORDINAL_POSITION) INTO v_columns
            FROM information_schema.COLUMNS
            WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = in_table AND COALESCE(GENERATION_EXPRESSION, '') = '';
            SET @jobmon_statement = CONCAT('INSERT INTO archive_', in_table, ' (', v_columns, ') SELECT ', in_table, '.',
                REPLACE(v_columns, ',', CONCAT(', ', in_table, '.')), v_from);
            PREPARE jobmon_prune FROM @jobmon_statement;
            EXECUTE jobmon_prune;
        END IF;
        SET @jobmon_statement = CONCAT('DELETE ', in_table, v_from);
        PREPARE jobmon_prune FROM @jobmon_statement;
        EXECUTE jobmon_prune;
        SET inout_num_rows = inout_num_rows + ROW_COUNT();
        DEALLOCATE PREPARE jobmon_prune;
        SET @jobmon_keys = NULL, @jobmon_statement = NULL;
    END IF;
END
