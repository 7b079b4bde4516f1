"""The search: Ray Tune runs trials, Optuna proposes them, the poor ones are stopped early.

Ray reads some of its settings when it is imported, here or in a worker, so they are set before any
module of this package can import it.
"""

import os

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # no tables of Tune's own
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # off, Ray binds to loopback on every system
    # a study that is interrupted leaves runs whose outcome nobody asks for; it records all others
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    # Ray would start workers at niceness 15: beside other programs they would hardly ever run.
    # It adds this to the niceness of the command.
    "RAY_worker_niceness": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the journal and our own events take their place
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failure has no metric
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # a search does not go on from Tune's own state
    # how long a worker waits for a stopped trial to end its step; less, and the next trial fails
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "86400",
}
