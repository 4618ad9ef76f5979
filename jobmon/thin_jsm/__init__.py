"""JSM, the JobStateManager: POST /<procedure> becomes CALL <procedure>."""
