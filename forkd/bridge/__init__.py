"""The programs scgi-cgi and fcgi-cgi: CGI programs behind a server that speaks SCGI or FastCGI.

They accept on descriptor 0 and run, for each request, the program that it names (scgi-cgi(1),
fcgi-cgi(1)).  Everything happens in callbacks of one loop.
"""
