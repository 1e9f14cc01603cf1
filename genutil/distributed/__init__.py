"""The processes of a run: their launch, their messages, and the report of a failure."""
