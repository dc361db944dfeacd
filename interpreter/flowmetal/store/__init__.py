"""Floor 1: where the event log is kept. `protocol` says what every backend promises."""
