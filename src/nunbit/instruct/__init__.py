"""Instructions: conversations about pictures, checked, and a vision-language model that learns from them.

::

    files ─ formats ─ samples ─┬─ doctor (nothing is trained yet)
                               └─ lessons ─ task ─ training.loop ─ model/
    pictures ─ eye, once ─ features ┘
"""
