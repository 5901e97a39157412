"""What everything stands on: errors, YAML, files, CPUs, versions, other interpreters, build targets."""
