"""The template of the peer: what stands on our case page, in the words of Django's templates."""

PAGE = """{% load humanize %}<!doctype html>
<html lang="en-GB">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>{{ case.title }} – Standing</title>
    <meta name="description" content="{{ case.summary }}">
    <style>{{ css }}</style>
    <script src="https://cdn.example/htmx.min.js" integrity="sha384-x" crossorigin="anonymous" defer></script>
  </head>
  <body>
    <a class="skip" href="#main">Skip to the content</a>
    <header>
      <p class="banner">Demonstration. No real money.</p>
      <div class="top">
        <a class="name" href="{% url 'home' %}">Standing</a>
        <nav aria-label="Site"><ul><li><a href="{% url 'home' %}">Cases</a></li><li><a href="{% url 'login' %}">Log in</a></li></ul></nav>
      </div>
    </header>
    <main id="main" tabindex="-1">
      <article class="case">
        <header class="heading"><h1>{{ case.title }}</h1><p class="by">by <a href="#owner">{{ case.owner.name }}</a></p></header>
        <section class="panel" aria-label="Pledges">
          <div id="pledge-total" data-hx-get="{% url 'total' slug=case.slug %}" data-hx-trigger="every 15s" data-hx-swap="outerHTML">
            <p class="total"><strong>£{{ total|intcomma }}</strong> pledged of £{{ target|intcomma }} target from {{ round.pledge_count }} pledge{{ round.pledge_count|pluralize }}</p>
            <progress max="{{ round.target_pence }}" value="{{ round.pledged_pence }}">£{{ total|intcomma }} of £{{ target|intcomma }}</progress>
            <p class="left"><strong>{{ round.deadline|timeuntil }}</strong><br>until <time datetime="{{ round.deadline|date:'c' }}">{{ round.deadline|date:"l j F Y, g:ia T" }}</time></p>
            <p><a class="button" id="pledge-now" href="{% url 'pledge' slug=case.slug %}">Pledge now</a></p>
            <p class="promise">Your card is charged only if pledges reach £{{ target|intcomma }} by {{ round.deadline|date:"l j F Y, g:ia T" }}. If they do not, you pay nothing.</p>
          </div>
        </section>
        <div class="story">{% for picture in case.pictures.all %}<img src="/pictures/{{ picture.sha256 }}" alt="">{% endfor %}{{ story }}</div>
        <div class="after">
          <section class="again"><p><a class="button" href="{% url 'pledge' slug=case.slug %}">Pledge now</a></p></section>
          {% if case.court or case.stage %}<section><h2>Where the case stands</h2><dl class="facts"><dt>Court</dt><dd>{{ case.court }}</dd><dt>Stage</dt><dd>{{ case.stage }}</dd></dl></section>{% endif %}
          {% for line in case.budget.all %}{% if forloop.first %}<section><h2>What the money is for</h2><dl>{% endif %}<dt>{{ line.words }}</dt><dd>{{ line.pence }}</dd>{% if forloop.last %}</dl></section>{% endif %}{% endfor %}
          {% if case.risks %}<section><h2>Risks</h2>{{ case.risks|linebreaks }}</section>{% endif %}
          {% for link in case.links.all %}<p><a href="{{ link.url }}">{{ link.title }}</a></p>{% endfor %}
          <section aria-labelledby="owner"><h2 id="owner">Case Owner</h2><div class="person"><p class="who">{{ case.owner.name }}</p>{{ case.owner.bio|linebreaks }}</div></section>
          {% if case.firm or case.lawyer %}<section><h2>Legal team</h2><p class="who">{{ case.lawyer }}</p><p>{{ case.firm }}</p></section>{% endif %}
          <section aria-labelledby="updates-heading"><h2 id="updates-heading">Updates</h2>
            {% for update, html in updates %}
              <article class="update" id="update-{{ update.id }}">
                <h3>{{ update.title }}</h3>
                <p class="when"><time datetime="{{ update.published_at|date:'c' }}">{{ update.published_at|date:"l j F Y, g:ia T" }}</time></p>
                {% for picture in update.pictures.all %}<img src="/pictures/{{ picture.sha256 }}" alt="">{% endfor %}
                {{ html }}
              </article>
            {% endfor %}
          </section>
          <section aria-labelledby="comments-heading"><h2 id="comments-heading">Comments</h2>
            <div id="comments" data-hx-get="{% url 'comments' slug=case.slug %}" data-hx-trigger="every 15s" data-hx-swap="outerHTML"><ol class="comments">
              {% for comment in comments %}
                <li class="comment" id="comment-{{ comment.id }}">
                  <p class="who">{{ comment.name|default:"Anonymous" }} <span class="when"><time datetime="{{ comment.created_at|date:'c' }}">{{ comment.created_at|date:"l j F Y, g:ia T" }}</time></span></p>
                  <div>{{ comment.public_body|urlize|linebreaks }}</div>
                  {% if comment.answer %}<div class="answer"><p class="who">Case owner, {{ case.owner.name }}</p><div>{{ comment.answer|urlize|linebreaks }}</div></div>{% endif %}
                  <p class="report"><a href="{% url 'report' number=comment.id %}" rel="nofollow">Report<span class="unseen"> the comment by {{ comment.name }}</span></a></p>
                </li>
              {% endfor %}
            </ol></div>
            <form id="comment-form" class="stack" method="post" action="{% url 'comments' slug=case.slug %}">
              <h3>Leave a comment</h3>
              <div class="field"><label for="name">Your name</label><input type="text" id="name" name="name" value=""></div>
              <div class="field"><label for="email">Your e-mail</label><p class="hint">Never shown.</p><input type="email" id="email" name="email" value=""></div>
              <div class="field"><label for="body">Your comment</label><textarea id="body" name="body" rows="5"></textarea></div>
              <p><button class="button">Send comment</button></p>
            </form>
          </section>
          <section aria-labelledby="share"><h2 id="share">Tell others</h2><ul class="share"><li><a href="mailto:?subject={{ case.title|urlencode }}">By e-mail</a></li><li><a href="https://wa.me/?text={{ case.title|urlencode }}">On WhatsApp</a></li></ul></section>
        </div>
      </article>
    </main>
  </body>
</html>
"""
