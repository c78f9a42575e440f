"""What runs: networks, their inputs, and the settings that network files leave open."""
