"""What tests share: factories, proxies, a scripted upstream, a browser, a terminal."""
