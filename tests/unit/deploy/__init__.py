"""The deployment files of deploy/."""
