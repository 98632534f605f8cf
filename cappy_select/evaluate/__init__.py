"""The paper's questions, asked of recorded answers: is what the scorer picks better than picking otherwise?"""
