"""The judge: its prompt, the grading of all answers, and the embedded stack's lexical one."""
