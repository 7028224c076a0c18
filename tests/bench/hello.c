/* A CGI program that costs next to nothing: what is measured is the server that runs it. */

#include <unistd.h>

static const char answer[] = "Content-Type: text/plain\r\n\r\nhello\n";

int main(void)
{
    return write(STDOUT_FILENO, answer, sizeof answer - 1) != sizeof answer - 1;
}
