"""What JSM and JQS share: the relay in front of Flask, the pool, errors, logs, metrics and the way they are
served."""
