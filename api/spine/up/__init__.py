"""`spine up`: the whole stack as child processes of one command, with its state in one folder.

command      the options of the command, and the one place that turns failures into a sentence
steps        what happens at a start, in order
plan         the addresses and folders of one start
home         the state folder: made, checked, locked
environment  which child gets which variables
children     starting the children and watching them
processes    finding, signalling and outliving processes
shutdown     stopping everything in order, within a deadline
prefect_side what is asked of Prefect: the work pool, the deployments, the interrupted runs
waiting      signals, and waiting that notices them
console      how the steps are shown
"""
