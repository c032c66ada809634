# The guest needs no package that Buildroot does not have; Buildroot asks for this file all the same.
