"""The evaluation of runs: every score stands beside that of real data.

scikit-learn, scipy and matplotlib take two seconds to import, longer than many
a command: functions import them when they run.
"""
