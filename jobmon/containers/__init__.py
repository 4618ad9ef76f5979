"""Jobmon in containers: what `./runserver.py --docker` does, and what runs inside the containers."""
