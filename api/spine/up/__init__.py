"""`spine up`: the whole stack as child processes of one command, with its state in one folder.

command        `spine up` and `spine deploy`: their options, and the translation of failures into one sentence
start          the steps of a start, in order
plan           addresses, folders and environments of one start, and the check of its ports
deploy         the project's `prefect.yaml`, deployed around entries that fail
home           the state folder: created, checked, locked
processes      starting, finding and signalling child processes, and stopping all of them in order
prefect_setup  calls to Prefect: the work pool, Spine's own deployments, interrupted runs
waiting        waiting that notices signals and children that ended
console        how the steps are shown
"""
