"""Guest time, and what happens when: clocks, events, the doorbell and the loop."""
