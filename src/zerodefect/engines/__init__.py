"""Where the work runs: this process (``local``); a cluster later."""
