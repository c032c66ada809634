"""pyemu: a RISC-V machine in Python that boots Linux and plays sound correctly."""
