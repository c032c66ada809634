"""The terminal: raw mode, escape keys, the prompt, and what is shown beside the guest's output."""
