"""Pictures to scores and maps, whatever the method."""
