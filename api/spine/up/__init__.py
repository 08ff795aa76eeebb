"""`spine up`: the whole stack as child processes of one command, with its state in one folder.

command        `spine up` and `spine deploy`: their options, and the translation of failures into one sentence
start          the steps of a start, in order
plan           addresses, folders and environments of one start, and the check of its ports
deploy         the project's `prefect.yaml`, deployed around entries that fail
home           the state folder: created, checked, locked
processes      starting, finding and signalling child processes, and stopping all of them in order
prefect_setup  calls to Prefect: the work pool, Spine's own deployments, interrupted runs
nursery        an interpreter that imports what several processes need, and forks them
forks          these processes, as `spine up` sees them
command_line   the command line of a forked process
calls          calls that another process carries out for `spine up`, so that it stays small
prefect_calls  those to Prefect
own_database   those about Spine's own database
worker         the worker, which imports what it needs while Prefect's server starts
waiting        waiting that notices signals and children that ended
console        how the steps are shown
"""
