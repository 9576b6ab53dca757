"""Plan and carry out over all gateways, and look at them.

Its modules are imported one by one, because ``status`` needs neither templates nor secrets::

    prepare.prepare(topology, base)      observe, compile, render and plan every gateway
    apply.apply(prepared, report)        carry the plans out, bring the tunnels up
    survey.survey(topology)              look at all gateways at once and judge the tunnels
"""
