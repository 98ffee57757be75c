"""The data plane: Cython without the GIL; engine.pyx is the only module that Python code talks to."""
