"""What is kept on disk: one SQLite database, written by one thread in grouped commits.

`database` knows SQLite and nothing of jobs, `jobs` is the jobs' table, `directory` the data
directory with its lock and its key files, `sealing` keeps secret values closed at rest.
"""
