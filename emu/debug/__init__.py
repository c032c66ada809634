"""A debugger at the machine: gdb's remote serial protocol, and what a debugger asks of a machine.

    server     the connection: a thread that frames packets, and posts them to the machine
    packets    the framing
    stub       what the packets mean
    target     the machine as a debugger sees it: it stands, in the middle of a turn of its loop if need be, or goes on
    registers  their names, for gdb, and where they are
    history    going backwards: snapshots, and running again

Nothing of it is imported before a debugger may come.
"""
