"""`make words`."""

import translations

for language in translations.languages():
    waiting = translations.renew(language)
    print(f"{language}: {len(waiting)} without words")
    for one in waiting:
        print(f"  {one}")
