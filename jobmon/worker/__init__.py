"""The worker: runs one job instance on whatever node it is started on, and reports on it.

Standard library only, and little of that: a worker is started for each job instance, so it must start fast.
"""
