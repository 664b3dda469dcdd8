"""What is done about jobs.

`ledger` is the one door through which a job changes, `queue` what waits for a worker, `workers`
and `attempt` deploy, `judgement` decides from what the engine says, `outcomes` carries that out,
and `tracker` follows what was deployed.
"""
