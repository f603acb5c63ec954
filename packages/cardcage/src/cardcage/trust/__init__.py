"""What makes a package trusted: the digest that names its bytes, and the checks that it is what it says it is.

Nothing here imports or runs anything of a package.
"""

from cardcage.trust.digest import PackageDigest, digest_package

__all__ = ["PackageDigest", "digest_package"]
