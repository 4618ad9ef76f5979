-- Description: Edges are never changed: gates count them when they are made.
CREATE TRIGGER job_edge_before_update BEFORE UPDATE ON job_edge FOR EACH ROW
BEGIN
    SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32050, MESSAGE_TEXT = 'IMMUTABLE_COLUMN: an edge is never changed';
END
