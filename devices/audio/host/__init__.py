"""The host's sound devices through PortAudio: played and recorded in the guest's time, drift corrected."""
