// Does nothing: what a task costs before its work begins.

int main(void) { return 0; }
