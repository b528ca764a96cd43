from .leaderboard import write_leaderboard as write_leaderboard
