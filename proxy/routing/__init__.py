"""Who serves a request, and who does when that one fails: pure decisions over what the configuration and the board say."""
