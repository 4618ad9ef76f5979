CREATE PROCEDURE end_workflow_run(
    in_workflow_run_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Ends a submitted live run, and its workflow, if no job of it is queued, live, or ready to be queued: as DONE if all are DONE, else as ERROR. Says how things stand, whether it did or not; cheap enough to be asked again and again.
Access: JSM
Parameters:
  in_workflow_run_id: the workflow run
Returns: {"status": letter of the run, "workflow_status": letter, "counts": {letter: n, ...}}: counts of the jobs by status
Errors: MISSING_PARAMETER, UNKNOWN_WORKFLOW_RUN
Example: CALL end_workflow_run(1);
'
BEGIN
    DECLARE v_dag_id BIGINT UNSIGNED;
    DECLARE v_outcome CHAR(1);
    DECLARE v_document LONGTEXT;
    DECLARE v_owns BOOLEAN;
    DECLARE EXIT HANDLER FOR SQLEXCEPTION
    BEGIN
        IF v_owns THEN
            ROLLBACK;
        ELSEIF NOT v_owns THEN
            CALL undo_work();
        END IF;
        RESIGNAL;
    END;
    CALL begin_work(v_owns);
    CALL find_dag_of_run(in_workflow_run_id, v_dag_id);
    -- looked at without locks first: who polls is in the way of no claim and no heartbeat
    SELECT outcome INTO v_outcome FROM finished_runs WHERE workflow_run_id = in_workflow_run_id;
    IF v_outcome IS NOT NULL THEN
        CALL end_run_if_finished(in_workflow_run_id);
    END IF;
    -- one statement, so one moment: a run that has ended is not shown with the jobs that it had before
    SELECT JSON_OBJECT('counts', JSON_EXTRACT((
        SELECT CONCAT('{', COALESCE(GROUP_CONCAT('"', status, '": ', num_jobs ORDER BY status), ''), '}') FROM (
            SELECT job_status.status, COUNT(*) AS num_jobs
            FROM job_status STRAIGHT_JOIN job FORCE INDEX (status) ON job.status = job_status.status AND job.dag_id = v_dag_id
            GROUP BY job_status.status) AS counted), '$'),
        'status', workflow_run.status, 'workflow_status', workflow.status) INTO v_document
    FROM workflow_run JOIN workflow ON workflow.workflow_id = workflow_run.workflow_id
    WHERE workflow_run.workflow_run_id = in_workflow_run_id;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT v_document AS document;
END
