from .leaderboard import write_leaderboard as write_leaderboard
from .page.write import write_page as write_page
