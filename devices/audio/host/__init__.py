"""The host's sound devices through PortAudio: paced by the guest's clock, with drift corrected."""
