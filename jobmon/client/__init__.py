"""The client library: workflows and their tasks, and calls of the services."""
