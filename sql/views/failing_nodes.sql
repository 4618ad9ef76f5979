-- Description: Nodes on which jobs fail that succeed elsewhere, since when, and how many.
-- Access: JQS
-- Example: SELECT * FROM failing_nodes;
CREATE VIEW failing_nodes AS
SELECT nodename, failing_since, check_date, num_job_instances, num_failed FROM failing_node
