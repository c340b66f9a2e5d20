"""The paper beside a study: what it claims (:mod:`.claims`), whose place a stage has in it (:mod:`.counterparts`), and
where the study says something else (:mod:`.drift`)."""
