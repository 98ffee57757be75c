"""The data plane: Cython without the GIL; engine.pyx is the only module Python code talks to."""
