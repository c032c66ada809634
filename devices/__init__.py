"""The devices of the machine, one per file; see contracts.py for what each is given."""
