/* A library to be preloaded: a program that begins while the file $STILLBORN exists ends before its main(). */
#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("STILLBORN");

	if (path && access(path, F_OK) == 0)
		_exit(70);
}
