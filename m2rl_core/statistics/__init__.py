"""How sure a number is: scores and their differences (:mod:`.scores`), correlations (:mod:`.correlation`).

Import from the modules: a stage then depends on the code of those that it uses, and on no other.
"""
