"""Operations: the one way by which configuration changes, whoever asks for it.

Each is a value with a stable name, in a module by its noun: it checks, writes and logs in one transaction. operation.py
has how one is done (perform) and how it travels (encode, decode).
"""
